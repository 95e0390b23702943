from .config import BoxInstConfig as BoxInstConfig
from .model import BoxInst as BoxInst
