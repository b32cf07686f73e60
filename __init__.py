"""allocgym: who gets how much of a training budget, as Gymnasium environments.

Importing this package registers the environments and imports only gymnasium, numpy and simpy.
Use the module-prefixed id, ``gymnasium.make("allocgym:allocgym/DataMixing-v0")``: it needs no
import, in worker processes either.
"""

from allocgym.envs.registration import register_all

__version__ = "0.1.0"
__all__ = ["__version__"]

register_all()
