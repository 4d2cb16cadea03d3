// The official JavaScript client: an informer on our kind and a watch that is broken off and resumed.
import * as k8s from '@kubernetes/client-node';

const image = process.argv[2];
const config = new k8s.KubeConfig();
config.loadFromDefault();
const objects = config.makeApiClient(k8s.CustomObjectsApi);
const place = { group: 'compute.evroclabs.net', version: 'v1alpha1', namespace: 'demo', plural: 'disks' };

function check(condition, what) {
  if (!condition) throw new Error(what);
}

const waiting = [];
const seen = [];
function note(type, object) {
  seen.push(`${type} ${object.metadata.name}`);
  for (const it of waiting.filter((it) => it.is(type, object))) it.resolve();
}
function until(what, is) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`not within 20 s: ${what}; seen: ${seen}`)), 20_000);
    waiting.push({ is, resolve: () => { clearTimeout(timer); resolve(); } });
  });
}

const disk = (name, labels = {}) => ({
  apiVersion: 'compute.evroclabs.net/v1alpha1', kind: 'Disk', metadata: { name, labels },
  spec: { diskImage: { diskImageRef: { name: image } } },
});
await objects.createNamespacedCustomObject({ ...place, body: disk('before') });

const path = '/apis/compute.evroclabs.net/v1alpha1/namespaces/demo/disks';
const informer = k8s.makeInformer(config, path, () => objects.listNamespacedCustomObject(place));
for (const type of ['add', 'update', 'delete']) informer.on(type, (object) => note(type, object));
informer.on('error', (error) => { seen.push(`error ${error.message}`); });
const first = until('the object that was there', (type, it) => type === 'add' && it.metadata.name === 'before');
await informer.start();
await first;
const added = until('a new object', (type, it) => type === 'add' && it.metadata.name === 'hello');
const ready = until('its status', (type, it) =>
  type === 'update' && it.metadata.name === 'hello' && (it.status?.conditions ?? []).some((c) => c.type === 'Ready' && c.status === 'True'));
await objects.createNamespacedCustomObject({ ...place, body: disk('hello', { team: 'red' }) });
await added;
await ready;
check(informer.get('hello', 'demo').metadata.labels.team === 'red', 'the informer has another object');
const gone = until('a deletion', (type, it) => type === 'delete' && it.metadata.name === 'hello');
await objects.deleteNamespacedCustomObject({ ...place, name: 'hello' });
await gone;
check(informer.list('demo').length === 1, 'the informer kept what is gone');
await informer.stop();

// From a revision that was seen, everything after it and nothing before.
const listed = await objects.listNamespacedCustomObject(place);
const events = [];
const watch = new k8s.Watch(config);
const later = until('an event after the list', (type, it) => type === 'ADDED' && it.metadata.name === 'later');
const request = await watch.watch(path, { resourceVersion: listed.metadata.resourceVersion }, (type, object) => {
  events.push(type);
  note(type, object);
}, () => {});
await objects.createNamespacedCustomObject({ ...place, body: disk('later') });
await later;
request.abort();
check(events[0] === 'ADDED', `events: ${events}`);

const core = config.makeApiClient(k8s.CoreV1Api);
await core.createNamespacedConfigMap({ namespace: 'demo', body: { metadata: { name: 'js' }, data: { a: 'b' } } });
check((await core.readNamespacedConfigMap({ namespace: 'demo', name: 'js' })).data.a === 'b', 'another config map');
try {
  await core.readNamespacedConfigMap({ namespace: 'demo', name: 'none' });
  check(false, 'an object that is not there');
} catch (error) {
  check(error.code === 404, `expected 404, found ${error}`);
}
console.log('passed');
process.exit(0);
