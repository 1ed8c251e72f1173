"""The web page and the HTTP API: pictures come in as bytes, fills go out as they are drawn."""
