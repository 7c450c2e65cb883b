"""Stands in for SGLang's kernel package, which the package index has for GPUs only (see sitecustomize.py).

One of its functions is needed to serve a dense text model on a CPU; it is written out here. Every other one raises.
"""


def assign_req_to_token_pool_cpu(rows, table, starts, ends, slots, width):
    """Note in `table` (requests, positions) which cache `slots` the new positions of every request use.

    `slots` holds those of all requests one after the other: positions starts[i] to ends[i] of row rows[i].
    """
    done = 0
    for row, start, end in zip(rows.tolist(), starts.tolist(), ends.tolist(), strict=True):
        table[row, start:end] = slots[done : done + end - start].to(table.dtype)
        done += end - start


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)

    def absent(*args, **kwargs):
        raise NotImplementedError(f"sgl_kernel.{name} has no CPU version here: serve such a model from a GPU")

    return absent
