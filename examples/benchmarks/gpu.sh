#!/bin/sh
# Everything that waits for a GPU, in one go: the tests, and the tables of examples/benchmarks. Takes half an hour.
#
#     sh examples/benchmarks/gpu.sh TEACHER DATA RESNET4B [FOLDER FOR THE RESULTS]
#
# TEACHER is a CIFAR ResNet-18 that takes [0,1] as it is (its weights do not matter for time), DATA a CIFAR-10 folder,
# RESNET4B the checkpoint that examples/cifar10/resnet4b.py is for (its weights matter: an attack is as long as the images stand).
set -u
teacher=$1 data=$2 robust=$3 out=${4:-gpu-results}
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
python examples/benchmarks/attacks.py "$robust" --arch examples/cifar10/resnet4b.py:resnet4b \
    --mean 0.4914,0.4822,0.4465 --std 0.2471,0.2435,0.2616 --data "$data" --eps 2/255 --images 1000 --device cuda \
    > "$out/attacks.txt" 2> "$out/attacks.err"
tail -n 1 "$out/tests.log"
cat "$out"/*.txt
