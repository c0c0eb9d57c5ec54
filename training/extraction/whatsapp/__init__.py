"""The grammar of WhatsApp's text exports: headers, bodies, and its own words in every language."""
