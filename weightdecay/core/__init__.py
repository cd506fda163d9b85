"""What knows nothing of decay: types, trees, argument checks, text, files, statistics, random streams.

.. include:: glossary.md
"""
