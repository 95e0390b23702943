from .serve import ServeConfig as ServeConfig
from .serve import serve_tool as serve_tool
