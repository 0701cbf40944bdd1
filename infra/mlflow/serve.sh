#!/bin/sh
# Start the MLflow server with secrets from files, which appear in no argument, image or compose file.
#
#   SECRETS             directory of the files; /run/secrets by default
#     postgres_password   of PGUSER at PGHOST
#     admin_password      of the user `admin`, for the first start; change it later through MLflow
#     flask_secret_key    signs the forms of the sign-up page
#     s3_credentials      an AWS credentials file
#   PGHOST, PGPORT, PGUSER, PGDATABASE    the database
#   MLFLOW_S3_ENDPOINT_URL                the S3 server; Amazon's by default
#   ARTIFACTS           where artifacts go, such as s3://mlflow
#   ALLOWED_HOSTS       host names that clients may use, separated by commas
#   PORT                5000 by default
set -eu
SECRETS=${SECRETS:-/run/secrets}
PGPASSWORD=$(cat "$SECRETS/postgres_password")
MLFLOW_AUTH_ADMIN_PASSWORD=$(cat "$SECRETS/admin_password")
MLFLOW_FLASK_SERVER_SECRET_KEY=$(cat "$SECRETS/flask_secret_key")
AWS_SHARED_CREDENTIALS_FILE=$SECRETS/s3_credentials
export PGPASSWORD MLFLOW_AUTH_ADMIN_PASSWORD MLFLOW_FLASK_SERVER_SECRET_KEY AWS_SHARED_CREDENTIALS_FILE
# Clients send artifacts to the server, so they need no S3 credentials.
exec mlflow server --app-name basic-auth --host 0.0.0.0 --port "${PORT:-5000}" --workers "${WORKERS:-2}" \
    --backend-store-uri postgresql+psycopg2:/// --artifacts-destination "$ARTIFACTS" \
    --allowed-hosts "$ALLOWED_HOSTS"
