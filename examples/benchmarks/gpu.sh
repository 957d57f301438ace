#!/bin/sh
# Everything that waits for a GPU, in one go: the tests, and the tables of examples/benchmarks. Takes half an hour.
#
#     sh examples/benchmarks/gpu.sh TEACHER DATA [FOLDER FOR THE RESULTS]
#
# TEACHER is a CIFAR ResNet-18 that takes [0,1] as it is (its weights do not matter for time), DATA a CIFAR-10 folder.
set -u
teacher=$1 data=$2 out=${3:-gpu-results}
cd "$(dirname "$0")/../.."
mkdir -p "$out"
export PYTHONPATH=.

python -m pytest -q > "$out/tests.log" 2>&1
python tests/benchmark/second_order.py --device cuda --compiled > "$out/second_order.txt" 2> "$out/second_order.err"
python tests/benchmark/precision.py --device cuda > "$out/precision.txt" 2> "$out/precision.err"
for student in "resnet18 --student-arg channels=32,64,128,256" "resnet18 --student-arg layers=1,1,1,1" \
    mobilenetv3_small_100 "vit_tiny_patch16_224 --student-arg depth=4"; do
    # shellcheck disable=SC2086 - the words of $student are options
    python -m kdcompress bench --teacher "$teacher" --teacher-mean none --student $student --data "$data" \
        --train-images 2000 --batch-size 128 --eps 8/255 --repeats 15 --device cuda \
        >> "$out/bench.txt" 2>> "$out/bench.err"
done
tail -n 1 "$out/tests.log"
cat "$out"/*.txt
