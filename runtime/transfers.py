"""Large contents over the bus, both ways: pulled down as retained chunks, sent up by credit."""

from runtime.downloads import ChunkResender, clear_blob, fetch_blob, publish_blob
from runtime.uploads import Grant, UploadCounts, Uploader, UploadReceiver, UploadStalledError

__all__ = [
    "ChunkResender",
    "Grant",
    "UploadCounts",
    "UploadReceiver",
    "UploadStalledError",
    "Uploader",
    "clear_blob",
    "fetch_blob",
    "publish_blob",
]
