// Initiates the replica set and makes the services' user, each if it does not exist: `mongosh --nodb first_start.js`.
const fs = require('fs');

const secret = (name) => fs.readFileSync(`/run/realtime/${name}`, 'utf8').trim();

const root = encodeURIComponent(secret('root_password'));
const admin = connect(`mongodb://root:${root}@mongodb:27017/admin?directConnection=true`);

try {
  admin.adminCommand({ replSetGetStatus: 1 });
} catch (error) {
  if (error.codeName !== 'NotYetInitialized') throw error;
  admin.adminCommand({ replSetInitiate: { _id: 'rs0', members: [{ _id: 0, host: 'mongodb:27017' }] } });
}
while (!admin.hello().isWritablePrimary) sleep(200);

const realtime = admin.getSiblingDB('realtime');
if (realtime.getUser('realtime') === null) {
  realtime.createUser({
    user: 'realtime',
    pwd: secret('realtime_password'),
    roles: [{ role: 'readWrite', db: 'realtime' }],
  });
}
