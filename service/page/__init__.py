"""What the browser gets: plain HTML, CSS and ES modules, served by `service/http/page.py`; nothing is built."""
