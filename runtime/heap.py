"""The memory that a program has freed and its C library keeps."""

import ctypes


def give_back() -> None:
    """Return free pages to the system, where the C library can. Takes milliseconds, without the GIL.

    glibc keeps what large vectors took: once one of n bytes was freed, the next ones up to that size come
    from a heap, which shrinks only at its end.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc alone has it
    if trim is not None:
        trim(0)
