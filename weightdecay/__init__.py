"""How much weight decay, of which kind, on which weights? The face, nothing else.

Every name is listed in ``__init__.pyi`` and loaded when it is first used, so that importing the package costs nothing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
