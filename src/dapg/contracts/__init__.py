"""What a plug-in has to keep: the checks behind ``dapg plugins check``, which the tests run over our own, too."""
