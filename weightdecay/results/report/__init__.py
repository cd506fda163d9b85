"""The report: a result as one self-contained HTML page.

`page` writes it, `content` collects what each section says, `cells` formats numbers, `figures` draws the plots, and
``page.html.jinja`` defines how the page looks. A new section is one method in `content` and one row of its list.
"""
