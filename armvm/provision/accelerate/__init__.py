"""``armvm accelerate``: a guest's compile steps run on this host, by the same compiler.

In the guest, a small program stands for gcc, g++, cc and c++. It passes each compile step (``-c``)
to a service of this host, through a port of the guest's loopback address that ssh forwards, and
answers the service's questions about files. The service finds all files that the compiler may
read (`includes`), copies them to a directory at the same paths, and compiles there, confined
(`sandbox`). So the preprocessor runs on the host too, and paths in objects and in dependency files
are the guest's. What is not certain to give the same object is compiled in the guest.

distcc 3.4 was measured first: its client runs the preprocessor in the guest, which takes 1.3 s for
a small file under emulation, and its server checks only once a second for a compiler's end.
"""
