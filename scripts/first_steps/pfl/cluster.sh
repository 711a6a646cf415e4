# Two processes train one model: bash cluster.sh BIN HERE
export PFL_WORKER_ADDRESSES=127.0.0.1:8476,127.0.0.1:8477
for rank in 0 1; do
  PFL_WORKER_RANK=$rank "$1/python" "$2/own_data.py" &
done
wait
