import dapg.core.plugins  # noqa: F401  # so that loaders, which import a data set by its module, find plug-ins
