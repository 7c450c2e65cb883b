"""A client of OpenAI-compatible endpoints that never pays for a request twice.

`client.py` is what data commands use; `courier.py` is the process that sends; `journal.py` keeps every reply.
"""
