from .config import Config as Config
from .config import parse_config as parse_config
from .device import resolve_device as resolve_device
from .errors import BoxelError as BoxelError
from .errors import UsageError as UsageError
from .files import atomic_path as atomic_path
