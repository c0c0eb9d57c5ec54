"""The application: the ground that every room stands on, and the rooms hub, serving, evaluation and demo."""
