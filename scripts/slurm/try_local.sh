#!/usr/bin/env bash
# Shows `cargo xtask reproduce GRID --launcher slurm` on a real Slurm, started on this machine for the purpose.
#
#     apt install slurm-wlm munge        # Debian; as root, or in a container
#     scripts/slurm/try_local.sh [GRID] [more arguments of reproduce]
#
# Starts munged, slurmctld and slurmd in a scratch folder on loopback, submits the grid (mini unless told otherwise), puts a task
# that runs back into the queue and kills another one the hard way, waits until the queue is empty, does the same runs without
# Slurm and without interruption, and compares every log. Leaves nothing behind. (Slurm holds a task back for two minutes
# before it starts again.)
set -euo pipefail
cd "$(dirname "$0")/../.."

grid=${1:-mini}
shift || true
scratch=$(mktemp -d)
# munged wants folders that nobody else can write to.
chmod 755 "$scratch"
mkdir -p "$scratch"/{state,spool,log,munge,work}
chmod 700 "$scratch/munge"
host=$(hostname -s)
cores=$(nproc)
memory=$(awk '/MemTotal/ {print int($2 / 1024 * 0.8)}' /proc/meminfo)
export SLURM_CONF=$scratch/slurm.conf

stop() {
    scancel --me 2>/dev/null || true
    kill $(jobs -p) 2>/dev/null || true
    wait 2>/dev/null || true
    rm -rf "$scratch"
}
trap stop EXIT
trap 'echo "stopped at line $LINENO"' ERR

cat > "$SLURM_CONF" <<CONF
ClusterName=try
SlurmctldHost=$host(127.0.0.1)
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
AuthInfo=socket=$scratch/munge/socket
CredType=cred/munge
SlurmctldPort=46817
SlurmdPort=46818
StateSaveLocation=$scratch/state
SlurmdSpoolDir=$scratch/spool
SlurmctldPidFile=$scratch/slurmctld.pid
SlurmdPidFile=$scratch/slurmd.pid
SlurmctldLogFile=$scratch/log/slurmctld
SlurmdLogFile=$scratch/log/slurmd
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SwitchType=switch/none
MpiDefault=none
JobRequeue=1
SchedulerParameters=requeue_delay=1
ReturnToService=2
NodeName=$host NodeAddr=127.0.0.1 CPUs=$cores RealMemory=$memory State=UNKNOWN
PartitionName=try Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF

echo "== a cluster of one node"
(umask 077 && dd if=/dev/urandom bs=1 count=1024 status=none > "$scratch/munge/key")
munged --force --foreground --key-file="$scratch/munge/key" --socket="$scratch/munge/socket" \
    --pid-file="$scratch/munge/pid" --log-file="$scratch/munge/log" --seed-file="$scratch/munge/seed" 2> "$scratch/log/munged" &
sleep 2
slurmctld -D > /dev/null 2>&1 &
sleep 2
slurmd -D > /dev/null 2>&1 &
for _ in $(seq 30); do
    sinfo --noheader --format=%t 2>/dev/null | grep -q idle && break
    sleep 1
done
sinfo || { cat "$scratch/log/"*; exit 1; }

echo "== $grid"
cargo xtask reproduce "$grid" --launcher slurm --threads 1 --work "$scratch/work" --output "$scratch/results" "$@"

# A task that runs, by the number of its own job; nothing when none does.
running() { squeue --noheader --states=RUNNING --format="%A %j" | awk '!/report/ {print $1; exit}'; }
for what in requeue kill; do
    for _ in $(seq 60); do
        job=$(running)
        [ -n "$job" ] && break
        sleep 0.5
    done
    sleep 1
    job=$(running)
    [ -n "$job" ] || { echo "nothing runs long enough for a $what"; continue; }
    if [ $what = requeue ]; then
        echo "== job $job goes back into the queue"
        scontrol requeue "$job" || true
    else
        echo "== job $job is killed and put back into the queue"
        scancel --signal=KILL --full "$job" || true
        sleep 2
        scontrol requeue "$job" 2>/dev/null || true
    fi
done

echo "== waiting for the queue"
while true; do
    left=$(squeue --noheader --array | wc -l)
    [ "$left" = 0 ] && break
    echo "$left tasks left"
    sleep 10
done

echo "== what came out"
cat "$scratch/work/slurm/"*-report.out
cargo xtask reproduce "$grid" --threads 1 --work "$scratch/plain" --output "$scratch/plain-results" "$@" > /dev/null
same=0
different=0
for record in "$scratch/plain-results/records/"*/; do
    other=$scratch/results/records/$(basename "$record")/log.jsonl
    if cmp -s "$record/log.jsonl" "$other"; then same=$((same + 1)); else different=$((different + 1)); fi
done
echo "$same logs equal those of the same runs without Slurm byte for byte, $different differ or are missing"
[ "$different" = 0 ]
