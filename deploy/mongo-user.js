// Run by the mongo image at the first start, and loaded by the health check of compose.yaml.
const secret = (name) => require("fs").readFileSync(`/run/secrets/${name}`, "utf8").trim();

// The application's user: everything in one database and nothing anywhere else.
if (typeof db !== "undefined" && db.getName() === "guerdon" && db.hello().setName === undefined) {
  db.createUser({user: "guerdon", pwd: secret("mongo_guerdon"), roles: [{role: "readWrite", db: "guerdon"}]});
}

// Make the replica set if there is none, and say whether this member can be written to.
function ready() {
  const admin = db.getSiblingDB("admin");
  admin.auth("root", secret("mongo_root"));
  try {
    admin.runCommand({replSetInitiate: {_id: "rs0", members: [{_id: 0, host: "mongo:27017"}]}});
  } catch (error) {
    // It exists.
  }
  if (!admin.hello().isWritablePrimary) {
    throw new Error("not a primary yet");
  }
}
