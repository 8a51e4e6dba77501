"""The gallery's server: an HTTP API under ``/api/v1`` and one page that uses it (extra ``gallery``)."""
