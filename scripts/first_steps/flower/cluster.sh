# Two processes of Ray serve one simulation: bash cluster.sh BIN HERE
"$1/ray" start --head --port=6379 --num-cpus=1
"$1/ray" start --address=127.0.0.1:6379 --num-cpus=1
PYTHONPATH="$2" "$1/python" -c '
from flwr.simulation import run_simulation
from own_data import client_app, server_app

backend = {"init_args": {"address": "127.0.0.1:6379"}, "client_resources": {"num_cpus": 1}}
run_simulation(server_app, client_app, num_supernodes=100, backend_config=backend)
'
"$1/ray" stop
