"""How much weight decay, of which kind, on which weights?

- A grid: `Grid` (a product of axes, `Grid.zip`, `Grid.random`, `Grid.sobol`), `logspace`, and the distributions
  `LogUniform`, `Uniform`, `IntUniform`, `Choice`.
- Training: `fit_grid`, `fit` and `plan`, with `Initial` weights; `map_grid` for a training function of your own;
  `compare` for regularizers with the same number of trials; `GridResult`, `load`, `load_params`; `suggest` for
  coefficients from a run without decay.
- In scikit-learn: `DecayClassifierCV`, `DecayRegressorCV`.
- Data and networks: `weightdecay.data`, `weightdecay.models`, `Data`, `Model`.
- Rules of weight decay: `NoDecay`, `L2`, `Decoupled`, `ProximalL1` and others, `PerLayer`, `Masked`;
  `weightdecay.masks`, `weightdecay.schedules`.
- For a training script of your own: `optimizer`, `sgd`, `adam`, `lion`, `rmsprop`, `lamb`, `muon`; `penalized`,
  `weightdecay.penalties`, `weightdecay.proximal`, `weightdecay.metrics`; `convert`.

All names are listed in ``__init__.pyi`` and loaded when they are first used, so that importing the package is fast.

## Guides

| guide | on the page of |
|---|---|
| [How to choose a decay](weightdecay/decay.html#how-to-choose-a-decay) | `weightdecay.decay` |
| [The rules](weightdecay/decay.html#the-rules) | `weightdecay.decay` |
| [Masks](weightdecay/decay.html#masks-which-weights-decay) | `weightdecay.decay` |
| [Training scripts](weightdecay/decay.html#in-a-training-script-of-your-own) | `weightdecay.decay` |
| [What a coefficient is elsewhere](weightdecay/decay.html#what-a-coefficient-is-elsewhere) | `weightdecay.decay` |
| [Your own network](weightdecay/models.html#your-own-network) | `weightdecay.models` |
| [Your own data](weightdecay/data.html#your-own-data) | `weightdecay.data` |
| [What may be an axis of a grid](weightdecay/search.html#what-may-be-an-axis-of-a-grid) | `weightdecay.search` |
| [Reading a result](weightdecay/results.html#reading-a-result) | `weightdecay.results` |
| [Fine-tuning](weightdecay/engine.html#fine-tuning) | `weightdecay.engine` |
| [How a grid runs](weightdecay/engine.html#how-a-grid-runs) | `weightdecay.engine` |
| [When something fails](weightdecay/engine.html#what-happens-when-something-fails) | `weightdecay.engine` |
| [Speed](weightdecay/engine.html#speed) | `weightdecay.engine` |
| [In scikit-learn](weightdecay/apps.html#in-scikit-learn) | `weightdecay.apps` |
| [On real data](weightdecay/apps.html#on-real-data) | `weightdecay.apps` |

## Rooms

The package has eleven rooms. A room imports only rooms above it.

| room | purpose |
|---|---|
| `weightdecay.core` | what knows nothing of decay: types, trees, checks, text, files, statistics, random streams |
| `weightdecay.decay` | what a training script imports: rules, masks, penalties, proximal maps, schedules, optimizers |
| `weightdecay.models` | networks of any library behind one interface, and our own |
| `weightdecay.data` | data sets, sources, files, splits, batches, augmentation |
| `weightdecay.plots` | tables in, matplotlib axes out |
| `weightdecay.training` | one member: task, step, loss, evaluation, early stopping, diagnostics |
| `weightdecay.search` | grids, axes, distributions, and what is trained next |
| `weightdecay.storage` | run directories, checkpoints, result folders, fingerprints |
| `weightdecay.results` | results, tables, the choice, the report |
| `weightdecay.engine` | groups, plans, lanes, devices: `fit_grid` and `map_grid` |
| `weightdecay.apps` | command line, estimators of scikit-learn, comparison, article |

.. include:: core/glossary.md
"""

import lazy_loader

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    try:
        return _load(name)
    except AttributeError:
        if name in __all__ or name.startswith("_"):
            raise
        from weightdecay.core.names import missing_attribute

        raise AttributeError(missing_attribute(__name__, name, __all__)) from None
