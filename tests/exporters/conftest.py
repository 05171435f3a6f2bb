import torch

torch.set_num_threads(1)  # beside other workers, threads of these small networks only wait
