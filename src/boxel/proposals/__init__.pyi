from .candidates import Candidates as Candidates
from .config import ProposalConfig as ProposalConfig
from .sources import propose as propose
