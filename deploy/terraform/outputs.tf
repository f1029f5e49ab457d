locals {
  environment = {
    for key, value in {
      project         = var.project
      region          = var.region
      root            = "gs://${google_storage_bucket.data.name}/runs"
      service_account = google_service_account.runner.email
      network         = var.network
      kms_key         = var.kms_key
      labels          = local.labels
    } : key => value if value != null
  }
}

output "environment" {
  description = "The pipelines' environments/NAME.yaml, to which image, machines, beam and training are added."
  value       = <<-EOT
    ${trimspace(yamlencode(local.environment))}
    # With an endpoint, its containers act as an account that reads the bucket, and no more:
    # registry: {model: NAME, endpoint: NAME, service_account: ${google_service_account.prediction.email}}
  EOT
}

output "images" {
  description = "Where images are pushed to."
  value       = "${var.region}-docker.pkg.dev/${var.project}/${google_artifact_registry_repository.this.repository_id}"
}

output "specs" {
  description = "Where CI puts compiled jobs: NAME.json for each pipeline."
  value       = "gs://${google_storage_bucket.control.name}/specs"
}

output "dataset" {
  description = "For predictions: bigquery://VALUE.TABLE."
  value       = "${var.project}.${google_bigquery_dataset.this.dataset_id}"
}

output "prediction_account" {
  description = "Account of prediction containers."
  value       = google_service_account.prediction.email
}

output "ci_account" {
  description = "Account of Cloud Build and GitHub's workflows."
  value       = google_service_account.ci.email
}

output "github_provider" {
  description = "For GitHub's workflows: vars.WORKLOAD_IDENTITY_PROVIDER."
  value       = one(google_iam_workload_identity_pool_provider.github[*].name)
}

output "topics" {
  description = "To which {\"span\": N} may be published, by pipeline."
  value       = { for name, topic in google_pubsub_topic.events : name => topic.id }
}

output "requests" {
  description = "Where runs are asked for over the web, by pipeline."
  value       = local.audiences
}
