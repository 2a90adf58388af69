import lblatency, time, random, sys
from lblatency.render import *
from lblatency import LatencyTracker, LatencyCollector
from prometheus_client import CollectorRegistry, generate_latest
N=int(sys.argv[1]); 
t=LatencyTracker(max_backends=200000)
rnd=random.Random(1)
for i in range(N):
    t.record_many("web", f"10.{i>>16&255}.{i>>8&255}.{i&255}:80", [rnd.lognormvariate(-2,1) for _ in range(200)])
def best(f,n=7):
    b=9e9
    for _ in range(n):
        a=time.perf_counter(); r=f(); b=min(b,time.perf_counter()-a)
    return b,r
tc,c=best(lambda: Capture(t)); print("capture",tc*1e3)
for f in FORMATS:
    tr,r=best(lambda: c.render(f)); print(f.content_type, tr*1e3, len(r)/1e6)
r=CollectorRegistry(); r.register(LatencyCollector(t))
if N<20000:
    tg,_=best(lambda: generate_latest(r),3); print("generate_latest", tg*1e3, "ratio", tg/(best(lambda: lblatency.exposition(t))[0]))
    tg,_=best(lambda: list(LatencyCollector(t).collect()),3); print("collect", tg*1e3)
