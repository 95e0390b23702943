from .candidates import Candidates as Candidates
from .config import ProposalConfig as ProposalConfig
from .sources import propose as propose
from .store import load_candidates as load_candidates
from .store import make_candidates as make_candidates
