#!/usr/bin/env bash
# Runs the device suite through the code for graphics cards on a machine that has none: Burn's wgpu runtime on
# lavapipe, Mesa's Vulkan driver that is a program on the processor.
#
# The feature is `wgpu`, whose shaders are WGSL, and not `vulkan`: with that one Burn hands SPIR-V to every Vulkan
# driver, and lavapipe (Mesa 22.3.6 and 25.0.7 alike) crashes in vkCreateComputePipelines on it. In a build with both,
# wgpu:0 would take SPIR-V too, so this build has a target folder of its own.
set -euo pipefail
cd "$(dirname "$0")/../.."

usage() {
    cat <<'TEXT'
usage: scripts/devices/lavapipe.sh [--target DIR] [--report FILE] [--device NAME]

Installs lavapipe where it is missing (Debian: mesa-vulkan-drivers and libvulkan1; needs root), builds lowburn with the
feature wgpu (half an hour on two cores the first time), prints what devices there are and the report of the device
suite, and exits with its status: 0 where everything passed.

  --target DIR    where to build, instead of target/devices
  --report FILE   write the report there as well
  --device NAME   check that one instead of wgpu:0
  -h, --help      this text

For a CUDA card no script is needed; it is one command:

    cargo run --release --features cuda -- devices --check cuda:0
TEXT
}

fail() {
    echo "$1" >&2
    exit 2
}

target=target/devices
report=
device=wgpu:0
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help)
            usage
            exit 0
            ;;
        --target | --report | --device)
            [ $# -gt 1 ] || fail "$1 needs a value; -h shows the usage"
            case $1 in
                --target) target=$2 ;;
                --report) report=$2 ;;
                --device) device=$2 ;;
            esac
            shift 2
            ;;
        *) fail "$1 is no option; -h shows the usage" ;;
    esac
done

# The driver's description, nothing where it is not installed; and whether the loader is there.
driver() { find /usr/share/vulkan/icd.d /etc/vulkan/icd.d -name 'lvp_icd*.json' -print -quit 2>/dev/null || true; }
loader() { find /usr/lib /usr/lib64 /lib -name 'libvulkan.so.1' -print -quit 2>/dev/null || true; }

if [ -z "$(driver)" ] || [ -z "$(loader)" ]; then
    command -v apt-get > /dev/null || fail "lavapipe is missing; install Mesa's Vulkan drivers and the Vulkan loader"
    [ "$(id -u)" = 0 ] || fail "lavapipe is missing; as root: apt-get install mesa-vulkan-drivers libvulkan1"
    echo "== lavapipe"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends mesa-vulkan-drivers libvulkan1
    [ -n "$(driver)" ] && [ -n "$(loader)" ] || fail "the packages are there, and lavapipe is not where Debian has it"
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# Mesa warns without one of these.
mkdir -m 700 "$scratch/runtime"
export XDG_RUNTIME_DIR=$scratch/runtime
# No other driver, should there be a card after all. The second name is what older loaders read.
VK_DRIVER_FILES=$(driver)
export VK_DRIVER_FILES VK_ICD_FILENAMES=$VK_DRIVER_FILES

echo "== the build"
CARGO_PROFILE_DEV_DEBUG=0 CARGO_INCREMENTAL=0 cargo build -p lowburn --features wgpu --target-dir "$target"
lowburn=$target/debug/lowburn

echo "== the devices"
"$lowburn" devices

echo "== the device suite on $device"
status=0
"$lowburn" devices --check "$device" > "$scratch/report.md" || status=$?
cat "$scratch/report.md"
if [ -n "$report" ]; then
    cp "$scratch/report.md" "$report"
fi
exit "$status"
