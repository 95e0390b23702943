from .config import BoxCasegConfig as BoxCasegConfig
from .model import BoxCaseg as BoxCaseg
