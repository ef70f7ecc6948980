#!/usr/bin/env bash
# The table of methods at 4 bits, group 64, asymmetric (MEASURED.md, "Methods").
#
#   [BITS=4 GROUP=64 SEED=0 WEIGHTS=fisher DENSE=0.5 FOLLOW=true SEQUENCES=128 WINDOWS='24 8' AUTOROUND= \
#    TUNE='epochs: 2'] tests/bench/quality.sh \
#       MODEL_FOLDER CALIBRATION_TEXT EVALUATION_TEXT [THREADS [METHOD ...]]
#
# Calibration: SEQUENCES windows of 512 tokens; embedding and head untouched. KL to the original in nats,
# top-1 and perplexity on the first 24 windows of 1024 tokens, no BOS, and KL on the first 8, those of
# ../shared/peers/QUALITY.md (WINDOWS). WEIGHTS: what calibration
# tokens count (calibration.token_weights); DENSE, FOLLOW: towards_dense and follow of quantize.gptq; AUTOROUND, TUNE:
# options of these two, as a recipe has them. METHOD: rtn gptq awq awq_gptq
# awq_gptq_autoround, each also with _tune behind it (quantize.tune on the same windows); fit_rtn
# fit_gptq fit_awq_gptq fit_awq_gptq_autoround (quantize.fit at BITS, which may be a fraction, groups of 32, 64 and
# 192), also with _tune; fit_file, fit_file_autoround: the latter two with embedding and head, BITS in the mean
# over the whole file.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
model=$1 calibration=$2 text=$3 threads=${4:-1}
shift 3; shift || true
methods=("$@")
[ ${#methods[@]} -gt 0 ] || methods=(rtn gptq awq awq_gptq)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

grid="{bits: ${BITS:-4}, group_size: ${GROUP:-64}}"
gptq="{bits: ${BITS:-4}, group_size: ${GROUP:-64}, towards_dense: ${DENSE:-0.5}, follow: ${FOLLOW:-true}}"
tune=", quantize.tune: {${TUNE:-epochs: 2}}"
fit="quantize.fit: {bits: ${BITS:-4}, group_sizes: [32, 64, 192]"
declare -A passes=(
  [rtn]="quantize.rtn: $grid"
  [gptq]="quantize.gptq: $gptq"
  [awq]="quantize.awq: $grid"
  [awq_gptq]="quantize.awq: {}, quantize.gptq: $gptq"
  [awq_gptq_autoround]="quantize.awq: {}, quantize.gptq: $gptq, quantize.autoround: {${AUTOROUND:-}}"
  [fit_rtn]="$fit, embedding: false, method: rtn}"
  [fit_gptq]="$fit, embedding: false, method: gptq}"
  [fit_awq_gptq]="$fit, embedding: false, method: awq+gptq}"
  [fit_awq_gptq_autoround]="$fit, embedding: false, method: awq+gptq+autoround}"
  [fit_file]="$fit, method: awq+gptq}"
  [fit_file_autoround]="$fit, method: awq+gptq+autoround}"
)
for method in "${!passes[@]}"; do passes[${method}_tune]="${passes[$method]}$tune"; done
read -ra windows <<<"${WINDOWS:-24 8}"
evaluations=""
for count in "${windows[@]}"; do
  evaluations+="  - divergence: {text: $(realpath "$text"), length: 1024, windows: $count}"$'\n'
done
kl=$(printf ' KL, %s windows |' "${windows[@]}")
echo "| method | bits a weight |$kl share of RTN's | top-1 | perplexity | pass seconds, $threads thread(s) | pass peak MB |"
echo "|---|---|$(printf -- '---|%.0s' "${windows[@]}")---|---|---|---|---|"
for method in "${methods[@]}"; do
  cat >"$work/$method.yaml" <<YAML
version: 1
seed: ${SEED:-0}
model: $(realpath "$model")
calibration: {text: $(realpath "$calibration"), sequences: ${SEQUENCES:-128}, length: 512, token_weights: ${WEIGHTS:-fisher}}
passes: [${passes[$method]}]
eval:
$evaluations
YAML
  "$root/build/bin/attar" run "$work/$method.yaml" --out "$work/$method" --threads "$threads" \
    >"$work/$method.out" 2>"$work/$method.err" || { cat "$work/$method.err" >&2; exit 1; }
  "${PYTHON:-$root/.venv/bin/python}" "$root/tests/bench/quality_row.py" "$method" "$work/$method" "$work/rtn_kl"
done
