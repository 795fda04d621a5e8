import torch, time, sys
sys.path.insert(0,'/work/main/tests')
from pathlib import Path
def test_probe(tiny_bundle, faces):
    from rdm_cli.core.pipeline import Pipeline
    from rdm_cli.core.bundles import open_bundle
    b = open_bundle(str(tiny_bundle))
    p = Pipeline(bundle=b)
    x = p.load_images(sorted(faces.rglob('*.png')))
    t=time.time(); c = p.encode(x); print('enc', time.time()-t)
    d = p.decode(c); 
    print(c.z, c.z.std(0), c.x_T.std(), (d-x).abs().mean())
    s = p.sample(8); print(s.z)
    d2 = p.decode(c.replace(z=c.z.roll(1,0))); print('swap z', (d2-d).abs().mean())
    d2 = p.decode(c.replace(x_T=c.x_T.roll(1,0))); print('swap x_T', (d2-d).abs().mean())
    for n in (1,2,3,4,5,8):
        q = Pipeline(bundle=b, batch_size=n)
        e = q.encode(x)
        dd = q.decode(c)
        print(n, (e.z-c.z).norm()/c.z.norm(), (e.x_T-c.x_T).norm()/c.x_T.norm(), (dd-d).abs().max(), torch.equal(e.z,c.z), torch.equal(e.x_T,c.x_T))
