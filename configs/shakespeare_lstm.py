"""Next-character prediction on Shakespeare's 715 speaking roles (LEAF, TensorFlow Federated).

The two-layer LSTM of LEAF and of Reddi et al. 2021 (arXiv:2003.00295; 820,522 parameters) on
sequences of 80 characters, 10 roles a round, one epoch of batch 4, FedAvg with client learning rate
1. Reddi et al. report 57 % after 1,200 rounds.
Costs: about 400 sequences a round, 0.4 GFLOP each.
Reaches: 40 % next-character accuracy well within 200 rounds.
"""

from fljax.config import default_config


def get_config():
    config = default_config()
    config.dataset = "shakespeare"
    config.partition = "natural"
    config.val_fraction = 0.0
    config.model = "char_lstm"
    config.clients_per_round = 10
    config.local_epochs = 1
    config.batch_size = 4
    config.client_lr = 1.0
    config.num_rounds = 200
    config.eval_every = 20
    config.target_accuracy = 0.40
    config.checkpoint_every = 50
    return config
