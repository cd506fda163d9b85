"""How much weight decay, of which kind, on which weights? The face, nothing else.

- A grid: `Grid` (product, `Grid.zip`, `Grid.random`, `Grid.sobol`), `logspace`, and the distributions `LogUniform`,
  `Uniform`, `IntUniform`, `Choice`.
- Training: `fit_grid`, `fit`, `plan`, `map_grid` for a training function of your own, `compare` for regularizers at one
  budget; `GridResult`, `load`, `load_params`.
- Data and networks: `weightdecay.data`, `weightdecay.models`, `Data`, `Model`.
- Rules of decay: `NoDecay`, `L2`, `Decoupled`, `ProximalL1` and the others, `PerLayer`, `Masked`; `weightdecay.masks`,
  `weightdecay.schedules`.
- For a training script of your own: `optimizer`, `sgd`, `adam`, `lion`, `rmsprop`, `lamb`, `muon`; `penalized`,
  `weightdecay.penalties`, `weightdecay.proximal`; `convert`.

Every name is listed in ``__init__.pyi`` and loaded when it is first used, so that importing the package costs nothing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
