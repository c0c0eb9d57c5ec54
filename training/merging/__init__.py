"""adapter + base → FP16 safetensors: the library of `ghost merge`."""
