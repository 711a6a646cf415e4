"""Says as a configuration what `own_data.py` says in Python."""

from fljax.config import default_config


def get_config():
    config = default_config()
    config.dataset = "csv"
    config.dataset_options.path = "rows.csv"
    config.dataset_options.test_path = "test.csv"
    config.dataset_options.client = "client"
    config.dataset_options.label = "label"
    config.model = "mlp"
    config.model_options.hidden = (64, 64)
    config.num_rounds = 50
    config.clients_per_round = 10
    config.local_epochs = 2
    config.batch_size = 10
    config.client_lr = 0.1
    return config
