# Two processes train one model: bash cluster.sh BIN HERE
for rank in 0 1; do
  "$1/python" "$2/../../simulate.py" --config="$2/cluster.py" --workdir=cluster \
    --coordinator_address=127.0.0.1:8476 --num_processes=2 --process_id=$rank &
done
wait
