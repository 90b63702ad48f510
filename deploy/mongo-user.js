// The mongo image runs this file at the first start, and the health check of compose.yaml loads it.
const secret = (name) => require("fs").readFileSync(`/run/secrets/${name}`, "utf8").trim();

// The user of the application: read and write access to one database only.
if (typeof db !== "undefined" && db.getName() === "guerdon" && db.hello().setName === undefined) {
  db.createUser({user: "guerdon", pwd: secret("mongo_guerdon"), roles: [{role: "readWrite", db: "guerdon"}]});
}

// Create the replica set if it does not exist, and throw an error until this member is the primary.
function ready() {
  const admin = db.getSiblingDB("admin");
  admin.auth("root", secret("mongo_root"));
  try {
    admin.runCommand({replSetInitiate: {_id: "rs0", members: [{_id: 0, host: "mongo:27017"}]}});
  } catch (error) {
    // The replica set exists.
  }
  if (!admin.hello().isWritablePrimary) {
    throw new Error("not a primary yet");
  }
}
