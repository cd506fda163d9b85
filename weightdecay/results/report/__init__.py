"""The report: a result as one self-contained HTML page.

`page` writes it, `content` collects what each section says, `cells` formats numbers, `figures` draws the plots, and
``page.html.jinja`` and ``page.css`` define how the page looks. ``tables.js`` sorts and filters its long tables. A new
section is one method in `content` and one row of its list.
"""
