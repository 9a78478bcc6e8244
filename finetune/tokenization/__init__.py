"""Documents → token ids: how a document is read, cut or windowed, cached and audited."""
