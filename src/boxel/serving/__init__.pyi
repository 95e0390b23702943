from .model import ModelServeConfig as ModelServeConfig
from .model import serve_model as serve_model
from .serve import ServeConfig as ServeConfig
from .serve import serve_tool as serve_tool
