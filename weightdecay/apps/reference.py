"""Build the reference: one page per room, with its guides, and one page per public module.

    python -m weightdecay.apps.reference FOLDER

The guides are the Markdown files next to the code; the docstring of a room includes them. Needs the extra ``docs``.
"""

import importlib
import sys
from pathlib import Path

PACKAGE = Path(__file__).parent.parent
ROOMS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))


def main(folder: str) -> None:
    """Write the reference as HTML.

    Args:
      folder: Folder to write; the first page is ``index.html``.
    """
    import pdoc
    from pdoc import render

    render.configure(docformat="google")
    public = importlib.import_module(PACKAGE.name).__all__
    internal = [room for room in ROOMS if room not in public]
    pages = [f"weightdecay.{room}" for room in internal]
    # For a room that users do not import, its page is enough, but for the files of it that are public.
    files = rf"!weightdecay\.(?!(?:training\.metrics|results\.trackers)$)(?:{'|'.join(internal)})\..*"
    pdoc.pdoc("weightdecay", *pages, files, output_directory=Path(folder))


if __name__ == "__main__":
    main(*sys.argv[1:])
