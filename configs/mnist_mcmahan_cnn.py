"""McMahan et al. 2017 (arXiv:1602.05629), MNIST CNN: rounds to 99 % test accuracy.

100 clients of 600 images, C = 0.1, B = 10. The paper's Table 2 needs, IID, 20 rounds at E = 5 and
34 at E = 1; the pathological partition (two shards of one label each a client) takes many more
rounds. Variants:

    mnist_mcmahan_cnn:iid      --config.local_epochs=5   (the default)
    mnist_mcmahan_cnn:shards   --config.local_epochs=5 --config.num_rounds=400

Costs: 30,000 examples a round at E = 5, 72 MFLOP each; about 20 s a round on two cores.
Reaches: 99 % test accuracy.
"""

from fljax.config import default_config


def get_config(partition="iid"):
    config = default_config()
    config.dataset = "mnist"
    config.num_clients = 100
    config.partition = partition
    config.val_fraction = 0.0
    config.model = "mcmahan_cnn"
    config.clients_per_round = 10
    config.local_epochs = 5
    config.batch_size = 10
    config.client_lr = 0.1
    config.num_rounds = 100
    config.eval_every = 1
    config.target_accuracy = 0.99
    config.stop_at_target = True
    config.checkpoint_every = 10
    return config
