from .config import CRFConfig as CRFConfig
from .inference import mean_field as mean_field
