"""Warnings name the line of the user's script, not a line of the library."""

import contextlib
import inspect
import subprocess
import sys
import warnings

import pytest

import weightdecay
from weightdecay.core.warn import warn


def library_function(code):
    """Return the function `called` that some code defines, which looks as if it was in a file of the package."""
    filename = weightdecay.__file__.replace("__init__", "engine/imagined")
    names = {"warn": warn, "contextlib": contextlib}
    exec(compile(code, filename, "exec"), names)
    return names["called"]


def here():
    """Line number of the caller."""
    return inspect.currentframe().f_back.f_lineno


def test_warn_names_the_first_line_outside_the_package():
    called = library_function("def inner():\n    warn('deep', RuntimeWarning)\ndef called():\n    inner()")
    with pytest.warns(RuntimeWarning, match="deep") as caught:
        called()
    assert (caught[0].filename, caught[0].lineno) == (__file__, here() - 1)


def test_warn_in_a_context_manager_of_the_package_names_the_line_of_the_with_statement():
    code = "@contextlib.contextmanager\ndef held():\n    warn('held')\n    yield\n"
    called = library_function(f"{code}def called():\n    with held():\n        pass")
    with pytest.warns(UserWarning, match="held") as caught:
        called()
    assert (caught[0].filename, caught[0].lineno) == (__file__, here() - 1)


def test_warn_is_shown_once_for_each_line_of_the_user():
    called = library_function("def called():\n    warn('again')")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            called()
        called()
    assert len(caught) == 2


def test_warn_is_an_error_where_filters_say_so():
    called = library_function("def called():\n    warn('refused')")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="refused"):
            called()


def test_warn_at_the_top_of_a_script_names_the_script(tmp_path):
    script = "from weightdecay.core.warn import warn\nwarn('top')\n"
    (tmp_path / "script.py").write_text(script)
    shown = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True, check=True)
    assert "script.py:2: UserWarning: top" in shown.stderr
