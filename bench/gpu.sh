#!/usr/bin/env bash
# Everything a GPU can show, in at most nine minutes and without a network: builds in place, tests on the device, times
# ops, methods beside the peers that are installed, and the metrics. Rows go to bench/results/gpu-*.csv.
#
#   DEVICE  cuda (default), cuda:1, cpu to try the script itself
#   OUT     a folder that gets a copy of the rows and of what was printed
#   WHEELS  a folder of wheels to install first, for what the machine lacks
set -uo pipefail
cd "$(dirname "$0")/.."
device=${DEVICE:-cuda} python=${PYTHON:-python3} out=${OUT:-}
log=$(mktemp)

# step NAME SECONDS COMMAND...: runs it within its share of the time; one that fails does not end the others.
step() {
  local name=$1 limit=$2
  shift 2
  printf '\n== %s, %d s so far\n' "$name" "$SECONDS"
  timeout "$limit" "$@"
  local code=$?
  [ $code -eq 0 ] || { printf '\n-- %s: exit %d%s\n' "$name" $code "$([ $code -eq 124 ] && echo ', out of time')"; }
}

run() {
  command -v nvidia-smi >/dev/null && nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
  command -v nvcc >/dev/null && nvcc --version | tail -1
  if [ -n "${WHEELS:-}" ]; then
    step wheels 30 "$python" -m pip install --quiet --no-index --no-deps "$WHEELS"/*.whl
  fi
  step build 90 "$python" -m pip install --quiet --no-build-isolation --no-deps --editable .
  for module in torchmetrics pytest_benchmark timm torchvision pytorch_grad_cam torchcam captum cv2 scipy quantus; do
    "$python" -c "import importlib.util as u, sys; sys.exit(u.find_spec('$module') is None)" || echo "left out: $module is missing"
  done
  # What cannot be imported here is reported, and the rest runs.
  step tests 140 "$python" -m pytest -q -p no:cacheprovider --continue-on-collection-errors --device "$device" \
    tests/test_gpu.py tests/test_ops.py tests/test_cuda.py tests/test_components.py tests/test_perturb.py tests/test_streams.py
  step ops 80 "$python" -m bench ops --quick --device "$device" --save gpu-ops
  for work in T1:30 T2:15 T3:15 T4:40 T5:20; do  # a file each: what is out of time takes nothing else with it
    step "peers ${work%:*}" "${work#*:}" \
      "$python" -m bench peers --quick --only "${work%:*}" --device "$device" --save "gpu-peers-${work%:*}"
  done
  # T6 and T9 are of the CPU.
  step curves 50 "$python" -m bench metrics --quick --only T7 --device "$device" --save gpu-curves
  step sharing 30 "$python" -m bench metrics --quick --only T8 --device "$device" --save gpu-sharing
}

run 2>&1 | tee "$log"
failed=$(grep -c '^-- ' "$log")
if [ -n "$out" ]; then
  mkdir -p "$out"
  cp "$log" "$out/gpu.log"
  cp bench/results/gpu-*.csv "$out"/ 2>/dev/null
fi
rm -f "$log"
exit $((failed > 0))
