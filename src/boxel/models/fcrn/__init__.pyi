from .config import FCRNConfig as FCRNConfig
from .config import FCRNInstancesConfig as FCRNInstancesConfig
from .config import VotingConfig as VotingConfig
from .instances import FCRNInstances as FCRNInstances
from .model import FCRN as FCRN
from .voting import vote as vote
