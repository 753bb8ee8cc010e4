"""From a search to the engines: reserve, call, settle, send."""
